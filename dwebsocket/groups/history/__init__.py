"""Histories in this process: nothing is lost, and each page that comes back gets what it has missed.

stream      the position of this process in one history, and the latest messages (sans-I/O)
history     what arrives is passed on in order, and members come in between
reader      what is missing is read: many groups in one question, each once
"""
