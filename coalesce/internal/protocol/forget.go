package protocol

import "github.com/fleetcall/fleetcall/coalesce/internal/wire"

// ForgetRequest asks to make all replicas forget a key.
type ForgetRequest struct {
	Names   Names
	Channel string // the control channel
	Notice  []byte // names the key, for the other replicas
	Counter string // "": a CountRequest is to tell the replicas, because Redis Cluster has the counter in another slot
}

// Command returns the forget as a command. ParseCount reads the reply: the number of the
// key.
func (r ForgetRequest) Command() Command {
	n := r.Names
	keys := []string{n.lease(), n.latest(), n.attempts()}
	if r.Counter != "" {
		keys = append(keys, r.Counter)
	}
	return forgetScript.command(0, keys, n.detachments(), r.Channel, r.Notice)
}

// CountRequest asks how many keys the fleet has forgotten, after those of the notices, of
// which it tells all replicas.
type CountRequest struct {
	Counter string
	Channel string // the control channel
	Notices [][]byte
}

// Command returns the count as a command. ParseCount reads the reply: the number of the
// last key.
func (r CountRequest) Command() Command {
	args, bytes := []any{r.Channel}, 0
	for _, notice := range r.Notices {
		args = append(args, notice)
		bytes += len(notice)
	}
	return countScript.command(bytes, []string{r.Counter}, args...)
}

// ParseCount reads the reply to a count or a forget. It is the zero Count when nothing was
// counted.
func ParseCount(reply any) wire.Count {
	list, _ := reply.([]any)
	return wire.Count{Began: max(number(list, 0), 0), N: max(number(list, 1), 0)}
}
