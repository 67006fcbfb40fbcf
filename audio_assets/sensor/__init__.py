"""What a tick of the sensor looks at and decides."""
