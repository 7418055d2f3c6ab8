package history

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Read returns the records of all processes that wrote into dir, sorted by time. It
// skips a last line that a killed process has not completed. Any other line that it
// cannot read is an error.
func Read(dir string) ([]Record, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	var records []Record
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) != extension {
			continue
		}
		of, err := readFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		records = append(records, of...)
	}
	sortByTime(records)
	return records, nil
}

func readFile(path string) ([]Record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1] // drops an incomplete last line
	var records []Record
	for number := 1; len(data) > 0; number++ {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("history: %s:%d: %w", path, number, err)
		}
		records = append(records, r)
	}
	return records, nil
}

func sortByTime(records []Record) {
	slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.At, b.At) })
}
