"""Code that runs only on the controller: the base of the action plugins, the command line, and the names of variables.

Imports: common, server.
"""
