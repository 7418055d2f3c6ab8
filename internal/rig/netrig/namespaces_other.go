//go:build !linux

package netrig

import "os/exec"

func namespacesMissing() string { return "Linux" }

// IntoNamespaces does nothing here: Missing says so.
func IntoNamespaces(*exec.Cmd) {}
