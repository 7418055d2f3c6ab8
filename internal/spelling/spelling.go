// Package spelling finds what a misspelt name stands for.
package spelling

// Nearest returns the known name that a misspelt one most likely stands for, or "" when
// none is near.
func Nearest(name string, known []string) string {
	best, most := "", 4 // edits
	for _, other := range known {
		if n := edits(name, other); n < most {
			best, most = other, n
		}
	}
	return best
}

// edits returns how many letters have to be put in, left out or replaced to make b of a:
// their Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := before
			if a[i] != b[j] {
				replaced++
			}
			before = row[j+1]
			row[j+1] = min(replaced, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
