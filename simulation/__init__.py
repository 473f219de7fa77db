"""The production cores under virtual time, with faults. Above the programs: it may import all of them."""
