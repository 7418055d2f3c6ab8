package protocol

// ForgetRequest asks to make all replicas forget the key that Names was made for.
type ForgetRequest struct {
	Names     Names
	Settings  *Settings
	Namespace string
	Notice    []byte // names the key, for the Fleets that lead its flights
	Message   []byte // for the others, on the key's channel
	Publish   string // PUBLISH or SPUBLISH, on the key's channel
}

// Command returns the forget as a command. Forgotten reads its reply.
func (r ForgetRequest) Command() Command {
	n := r.Names
	return forgetScript.command(0, []string{n.lease(), n.latest(), n.attempts()},
		FleetOf(n.Flight()), controlStart(r.Namespace), n.database(), r.Notice,
		n.Channel(), r.Message, r.Publish, r.Settings.attemptsTTL)
}

// Forgotten returns the notice of a large outcome that MaxAge had kept until a forget, or ""
// where there was none. Its pieces are still stored: see Expire.
func Forgotten(reply any) (notice string) {
	notice, _ = reply.(string)
	return notice
}
