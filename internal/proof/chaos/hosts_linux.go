package chaos

import (
	"os"
	"os/exec"
	"syscall"
)

// namespacesMissing says what making namespaces takes; "": nothing.
func namespacesMissing() string {
	if os.Geteuid() != 0 {
		return "root"
	}
	probe := exec.Command("true")
	intoNamespaces(probe)
	if probe.Run() != nil {
		return "the right to make network namespaces"
	}
	return ""
}

// intoNamespaces has the command run in network and mount namespaces of its own.
func intoNamespaces(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
}
