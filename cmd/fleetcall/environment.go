package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/joho/godotenv"

	"github.com/fleetcall/fleetcall/internal/spelling"
)

// loadEnvironment adds what the file sets and the environment does not. A
// variable that is set to nothing counts as not set, as compose files leave
// them.
func loadEnvironment(file string) error {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("fleetcall: reading %s: %w", file, err)
	}
	settings, err := godotenv.UnmarshalBytes(text)
	if err != nil {
		// The parser's own error quotes the file, which has passwords.
		return fmt.Errorf("fleetcall: reading %s: line %d is not NAME=value", file, badLine(string(text)))
	}
	for name, value := range settings {
		if _, set := os.LookupEnv(name); set {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("fleetcall: reading %s: setting %s: %w", file, name, err)
		}
	}
	for _, setting := range os.Environ() {
		if name, value, ok := strings.Cut(setting, "="); ok && name != "" && value == "" {
			if err := os.Unsetenv(name); err != nil {
				return fmt.Errorf("fleetcall: reading the environment: %w", err)
			}
		}
	}
	return nil
}

// badLine returns the number of the first line that cannot be read. A value in quotes
// may have several lines: what is before the bad one can be read, with more of it or
// with less.
func badLine(text string) int {
	lines := strings.SplitAfter(text, "\n")
	for n := len(lines) - 1; n > 0; n-- {
		if _, err := godotenv.Unmarshal(strings.Join(lines[:n], "")); err == nil {
			return n + 1
		}
	}
	return 1
}

// ownPrefixes are how the names of the program's own variables begin.
var ownPrefixes = []string{"COALESCE_", "DB_", "FLEET_"}

// misspelt returns a sentence for each variable of the environment that looks like one
// of the program's, and is none: it would have no effect, and nobody would know.
func misspelt(model *kong.Application, environment []string) []string {
	known := variables(model.Node)
	var sentences []string
	for _, setting := range environment {
		name, _, _ := strings.Cut(setting, "=")
		own := slices.ContainsFunc(ownPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if !own || slices.Contains(known, name) {
			continue
		}
		sentence := fmt.Sprintf("fleetcall: the environment sets %s, which is no setting of fleetcall's and has no effect", name)
		if near := spelling.Nearest(name, known); near != "" {
			sentence += "; did you mean " + near + "?"
		}
		sentences = append(sentences, sentence)
	}
	slices.Sort(sentences)
	return sentences
}

// variables returns the names of all variables that the flags of a command, or of those
// below it, have.
func variables(node *kong.Node) []string {
	var names []string
	for _, flag := range node.Flags {
		names = append(names, flag.Envs...)
	}
	for _, child := range node.Children {
		names = append(names, variables(child)...)
	}
	return names
}
