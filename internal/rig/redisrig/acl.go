package redisrig

import (
	"crypto/rand"
	"strings"
)

// ACL returns arguments for Start, StartCluster and StartSentinel. With them, the
// servers accept this user, written as after "ACL SETUSER", and a user with all rights
// for the servers themselves and the test's own clients. The default user is off.
func ACL(user string) []string {
	own := rand.Text()
	args := []string{
		"--masteruser", "own", "--masterauth", own,
		"--user", "own", "on", ">" + own, "~*", "&*", "+@all",
		"--user", "default", "off",
		"--user",
	}
	return append(args, strings.Fields(user)...)
}
