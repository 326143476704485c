"""The driver of topologies, record by record, without a broker."""
