"""The async client: calls with deadlines, retries that cannot do a thing twice, watches that resume, typed errors."""
