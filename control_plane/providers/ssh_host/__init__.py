"""A host reached by SSH: its settings, the connection to it, and the script that runs replicas over there."""
