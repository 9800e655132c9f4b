"""The AWS endpoint of the embedded AWS: one file a service, over what they share (`service.py`, `app.py`)."""
