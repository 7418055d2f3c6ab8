package coalescehttp

// sentAtOnce is how many bytes of a body net/http keeps, unless it is told to flush, until
// the handler has returned: the client of a shorter one waits for that anyway.
const sentAtOnce = 2 << 10

// pump has what is kept written to the client by a goroutine of its own.
func (w *recorder) pump() {
	if !w.pumping {
		w.pumping = true
		w.pumped, w.grown = make(chan struct{}), make(chan struct{}, 1)
		go w.runPump(Decision{Role: w.call.leadersRole(), Flight: w.answer.Flight})
		return
	}
	select {
	case w.grown <- struct{}{}:
	default: // the pump has not yet taken note of what came before
	}
}

func (w *recorder) runPump(d Decision) {
	defer close(w.pumped)
	defer func() {
		if value := recover(); value != nil { // of an outer handler's writer
			w.mu.Lock()
			w.panicked = value
			w.mu.Unlock()
		}
	}()
	w.sendHeader(d)
	written := 0
	for {
		w.mu.Lock()
		more, stop := w.body[written:], w.stop
		w.mu.Unlock()
		if len(more) == 0 {
			if stop {
				return
			}
			<-w.grown
			continue
		}
		n, err := w.client.Write(more)
		if err != nil {
			return // the client has left; what the handler writes is for others
		}
		written += n
	}
}

// goDirect gives the client what was kept, so that the handler may write to it.
func (w *recorder) goDirect() {
	w.mode = direct
	defer func() { w.body = nil }() // a stream may last for hours
	if !w.pumping {
		w.sendHeader(w.alone())
		if len(w.body) > 0 {
			_, _ = w.client.Write(w.body)
		}
		return
	}
	w.mu.Lock()
	w.stop = true
	w.mu.Unlock()
	w.pump()
	<-w.pumped
	if w.panicked != nil {
		panic(w.panicked)
	}
}
