package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// children returns what /proc says of the processes whose parent this one is.
func children() ([]string, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var state byte
		var parent int
		after := string(text[bytes.LastIndexByte(text, ')')+1:])
		if _, err := fmt.Sscanf(after, " %c %d", &state, &parent); err == nil && parent == os.Getpid() && state != 'Z' {
			found = append(found, string(text))
		}
	}
	return found, nil
}
