"""Prices: a package in src/, which has to be installed to be found."""
