package publish

import (
	"fmt"
	"strings"
	"time"
)

const unreleased = "## Unreleased\n"

// release gives what is not yet released a version and a date, in the text of a
// changelog. A changelog without such entries stays as it is.
func release(changelog, version string, date time.Time) string {
	before, after, found := strings.Cut(changelog, unreleased)
	if !found {
		return changelog
	}
	entries, _, _ := strings.Cut(after, "\n## ")
	if strings.TrimSpace(entries) == "" {
		return changelog
	}
	return fmt.Sprintf("%s%s\n## %s (%s)\n%s", before, unreleased, version, date.UTC().Format(time.DateOnly), after)
}
