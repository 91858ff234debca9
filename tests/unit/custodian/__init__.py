"""The custodian: its rules, its machine and its files."""
