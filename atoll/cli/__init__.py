"""The command line: one file per noun, one function per verb. Standard output is data, standard error is the rest."""
