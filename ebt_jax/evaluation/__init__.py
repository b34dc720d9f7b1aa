"""A policy in closed loop on a suite, or in open loop beside demonstrations; every result with its interval and its conditions."""
