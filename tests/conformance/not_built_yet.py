"""Cases that no topology is written for yet. Take a name out when its builder is there."""

NOT_BUILT_YET: list[str] = []
