package publish

import (
	"testing"
	"time"
)

func TestTheChangelogGetsAVersionOnlyWhenItHasEntries(t *testing.T) {
	date := time.Date(2026, 3, 4, 23, 0, 0, 0, time.UTC)
	for _, test := range []struct{ before, after string }{
		{"# Changelog\n\n## Unreleased\n\n- New.\n", "# Changelog\n\n## Unreleased\n\n## v0.2.0 (2026-03-04)\n\n- New.\n"},
		{"# Changelog\n\n## Unreleased\n\n## v0.1.0 (2026-01-01)\n\n- Old.\n", "# Changelog\n\n## Unreleased\n\n## v0.1.0 (2026-01-01)\n\n- Old.\n"},
		{"# Changelog\n\n## Unreleased\n", "# Changelog\n\n## Unreleased\n"},
		{"# Changelog\n", "# Changelog\n"},
	} {
		if got := release(test.before, "v0.2.0", date); got != test.after {
			t.Errorf("%q becomes\n%q, want\n%q", test.before, got, test.after)
		}
	}
}
