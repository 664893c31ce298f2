"""What a host is to be - files, directories, packages, accounts, services - brought about in order, in one call."""
