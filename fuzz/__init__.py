"""Fuzz targets, one for each module that takes bytes or names from anywhere."""
