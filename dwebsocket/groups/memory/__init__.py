"""The things that a broker would keep, in the memory of this process. Its classes have no lock: their owner has one."""
