"""Code that runs only on the controller: the base of the action plugins, the command line, failures, and variables' names.

Imports: common, server.
"""
