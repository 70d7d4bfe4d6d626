"""Ship Switchyard to Azure: make the package, publish it, see that it serves, go back. Standard library only.

`python -m deploy` says how. Nothing here is in the package, and nothing in the package knows of it.
"""
