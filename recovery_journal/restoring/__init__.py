"""After a restore: what may be lost, who must write no more, and where the journal goes on."""
