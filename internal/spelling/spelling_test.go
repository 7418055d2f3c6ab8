package spelling

import "testing"

func TestNearestIsTheNameWithTheFewestEdits(t *testing.T) {
	known := []string{"coalesce", "cookies", "fields"}
	for name, want := range map[string]string{"coalese": "coalesce", "cookie": "cookies", "feilds": "fields", "nonsense": "", "": ""} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
