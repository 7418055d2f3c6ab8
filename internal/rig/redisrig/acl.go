package redisrig

import (
	"crypto/rand"
	"strings"
)

// ACL returns what makes Start, StartCluster and StartSentinel start
// servers that let in only this user, given as in "ACL SETUSER", and the
// servers' and the test's own clients, who may do everything. The default user
// is off.
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
