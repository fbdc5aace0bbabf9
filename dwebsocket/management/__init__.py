"""What `manage.py` gets: a client to try a view with, and a doctor for what is between the client and the view."""
