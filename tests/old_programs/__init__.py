"""Views as projects wrote them for dwebsocket 0.5, each of the same shape as one that is in use somewhere.

They are what an old program is: no line is written for the new class, and what 0.5 did is relied on.
"""
