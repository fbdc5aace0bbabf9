"""Presence: the members of this process that are here, and what its members are told of all that are.

members     a member, as a project sees it
attendance  those of this process enter, leave after a grace, and hold one lease
gathering   callers that come at the same time share one call
roster      one roster, as it is known and as it was told (sans-I/O)
rosters     the members that are told of rosters
"""
