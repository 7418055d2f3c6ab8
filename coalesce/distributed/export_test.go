package distributed

// The examples have a Redis timeout that is out of a busy machine's reach.
func init() { defaultRedisTimeout = defaultLeaseTTL }
