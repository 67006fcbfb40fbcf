"""A real SQS queue that a bucket sends its notifications to."""

import boto3

from audio_assets_tests.support.places import S3Place


class Queue:
    """The queue that the place's bucket tells of itself, seen by whoever looks into it."""

    def __init__(self, place: S3Place, server: str) -> None:
        self.client = boto3.client("sqs", endpoint_url=server)
        self.url = self.client.create_queue(QueueName=f"events-of-{place.bucket}")["QueueUrl"]
        asked = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        kinds = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        sent = {"QueueArn": asked["Attributes"]["QueueArn"], "Events": kinds}
        boto3.client("s3", endpoint_url=server).put_bucket_notification_configuration(
            Bucket=place.bucket, NotificationConfiguration={"QueueConfigurations": [sent]}
        )

    def send(self, body: str) -> None:
        self.client.send_message(QueueUrl=self.url, MessageBody=body)

    def purge(self) -> None:
        self.client.purge_queue(QueueUrl=self.url)

    @property
    def messages(self) -> int:
        """How many are in it, those included that are hidden since they were read."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(map(int, found["Attributes"].values()))
