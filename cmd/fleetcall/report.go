package main

import (
	"net/url"
	"os"
	"strings"

	"github.com/fleetcall/fleetcall/internal/report"
)

// createReport makes the file of a report. Without a path it returns nil.
func createReport(path string) (*report.File, error) {
	if path == "" {
		return nil, nil
	}
	return report.Create(path)
}

// commandLine returns the words as a shell reads them.
func commandLine(words ...string) string {
	quoted := make([]string, 0, len(words))
	for _, word := range words {
		if strings.ContainsFunc(word, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=,.:/@%+…", r)
		}) {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		quoted = append(quoted, word)
	}
	return strings.Join(quoted, " ")
}

// publicURL returns a URL without its user, password, query and fragment.
func publicURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// fleetEnvironment returns the settings that a fleet's replicas have from the
// environment, of those that tell on a measurement. None of them is a secret.
func fleetEnvironment() []string {
	var set []string
	for _, name := range []string{"QUERY_DELAY", "DB_POOL_MIN", "DB_POOL_MAX", "DB_POOL_WAIT", "COALESCE_LEASE_TTL",
		"COALESCE_FLIGHT_TIMEOUT", "COALESCE_REDIS_TIMEOUT", "MAX_CONNECTIONS"} {
		if value := os.Getenv(name); value != "" {
			set = append(set, name+"="+value)
		}
	}
	return set
}
