"""Commands for `manage.py`: a client to try a view with, and a doctor for the way between client and view."""
