"""What a store that is no folder lies on: S3, SFTP, or what fsspec knows."""
