"""A Kafka broker in memory, the ports of the engine on it, and an application that is driven tick by tick."""
