package protocol_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTheTranscriptsCoverEveryConditionOfTheScripts plays every situation with scripts
// that note what each operand of each condition was: each must have been true in one
// situation, and false in another. So whoever adds a branch to a script has to write its
// situations.
func TestTheTranscriptsCoverEveryConditionOfTheScripts(t *testing.T) {
	s := newStage(t)
	operands := map[string]bool{}
	s.source = func(step, source string) string { return instrumented(step, source, operands) }
	seen := map[string]bool{}
	for _, situation := range situations() {
		s.begin()
		situation.given(s)
		situation.call(s).send()
		for _, member := range s.do("SMEMBERS", coverage).([]any) {
			seen[member.(string)] = true
		}
	}
	t.Logf("%d operands of conditions", len(operands))
	for _, operand := range slices.Sorted(maps.Keys(operands)) {
		for _, value := range []string{"true", "false"} {
			if !seen[operand+" = "+value] {
				t.Errorf("in no situation is %s %s", operand, value)
			}
		}
	}
}

// coverage is the set of what has been seen.
const coverage = "coverage"

// note is the Lua function that an operand's value goes through.
const note = `
local function note(operand, value)
  redis.call('SADD', '` + coverage + `', operand .. ' = ' .. (value and 'true' or 'false'))
  return value
end
`

// The lines that have conditions: every one stands on a line of its own, which ends
// with then, and so does every variable that is one. A return's `or` is a default.
var (
	ifLine         = regexp.MustCompile(`^(\s*(?:if|elseif) )(.*)( then)$`)
	assignmentLine = regexp.MustCompile(`^(\s*(?:local )?\w+ = )(.* (?:and|or) .*)()$`)
)

// instrumented returns a script that notes what each operand of its conditions is.
func instrumented(step, source string, operands map[string]bool) string {
	if strings.HasPrefix(source, "-- many:") { // around a step, which situations of its own cover
		inner, own, _ := strings.Cut(source, manyBegins)
		return note + inner + manyBegins + strings.TrimPrefix(instrumented("many", own, operands), note)
	}
	lines := strings.Split(source, "\n")
	for i, line := range lines {
		if strings.HasPrefix(strings.TrimSpace(line), "--") {
			continue
		}
		for _, kind := range []*regexp.Regexp{ifLine, assignmentLine} {
			if m := kind.FindStringSubmatch(line); m != nil && (kind == ifLine || len(split(m[2])) > 1) {
				lines[i] = m[1] + noted(fmt.Sprintf("%s.lua:%d", step, i+1), m[2], operands) + m[3]
			}
		}
	}
	return note + strings.Join(lines, "\n")
}

// manyBegins is where many.lua goes on after the step.
const manyBegins = "local keys_each, args_each"

// noted has each operand of an expression noted. A literal can only be what it is.
func noted(where, expression string, operands map[string]bool) string {
	parts := split(expression)
	if len(parts) == 1 {
		if inner, ok := parenthesised(expression); ok {
			return "(" + noted(where, inner, operands) + ")"
		}
		if luaLiteral.MatchString(expression) {
			return expression
		}
		operand := fmt.Sprintf("%s: %s", where, expression)
		operands[operand] = true
		return fmt.Sprintf("note([==[%s]==], %s)", operand, expression)
	}
	for i := 0; i < len(parts); i += 2 {
		parts[i] = noted(where, parts[i], operands)
	}
	return strings.Join(parts, "")
}

var luaLiteral = regexp.MustCompile(`^('[^']*'|\d+)$`)

// split returns operands and operators in turn. It leaves alone what is in parentheses
// or quotes.
func split(expression string) (parts []string) {
	depth, quoted, from := 0, false, 0
	for i := 0; i < len(expression); i++ {
		switch c := expression[i]; {
		case c == '\'':
			quoted = !quoted
		case quoted:
		case c == '(' || c == '[':
			depth++
		case c == ')' || c == ']':
			depth--
		case depth == 0:
			for _, operator := range []string{" and ", " or "} {
				if strings.HasPrefix(expression[i:], operator) {
					parts = append(parts, expression[from:i], operator)
					from = i + len(operator)
				}
			}
		}
	}
	return append(parts, expression[from:])
}

// parenthesised returns what stands between parentheses around the whole expression.
func parenthesised(expression string) (inner string, ok bool) {
	if !strings.HasPrefix(expression, "(") || !strings.HasSuffix(expression, ")") {
		return "", false
	}
	depth := 0
	for i, c := range expression {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 && i < len(expression)-1 {
			return "", false
		}
	}
	return expression[1 : len(expression)-1], true
}
