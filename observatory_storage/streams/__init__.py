"""The live stream: what writers commit is published to Redis Streams, and read from there."""
