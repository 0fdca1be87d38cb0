"""Mutation tests: change one piece of code, run its tests, and list the changes that no test notices.

The maintained tools do not fit. mutmut 3 has no seed and no limit on the number of mutants, and it writes into the
checkout. cosmic-ray 8 has neither of the two options, and it changes the files of the checkout in place.
"""
