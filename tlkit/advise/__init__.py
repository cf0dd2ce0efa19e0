"""``tlkit advise``: which protocol to begin with, from published studies or from the user's own.

Imports no torch: what is advised is arithmetic on tables.
"""
