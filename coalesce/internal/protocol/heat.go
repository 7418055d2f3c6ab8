package protocol

// HeatChannel returns the channel on which all Fleets with adaptive Groups, whose clients use
// the database, hear of keys that have become hot, or were forgotten.
func HeatChannel(namespace string, database int) string {
	return namespace + ":heat" + inDatabase(database)
}

// Tell returns the command that publishes a notice on a HeatChannel. It is a plain PUBLISH:
// on a Redis Cluster, the nodes pass it on to each other. The reply is how many hear it, on a
// Cluster of those that are at the node.
func Tell(channel string, notice []byte) Command {
	return Command{plain: "tell", args: []any{"publish", channel, notice}}
}
