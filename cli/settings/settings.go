// Package settings layers a program's settings: flag over environment over file over default.
//
// Invariants:
//
//   - A value comes whole from the highest layer that names it; layers are never mixed within one value.
//   - Every value remembers where it came from, so that an error or a listing can say so.
//   - A name in the file that is not a setting is an error: a misspelt setting is never ignored.
//   - Assignments (NAME=VALUE pairs, the setting given as Spec.Assign) are layered name by name.
package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// Kind says which layer a value came from.
type Kind uint8

// The layers, lowest first.
const (
	Default Kind = iota
	File
	Environment
	Flag
)

// Source says where a value came from.
type Source struct {
	Kind Kind
	// Where is the flag, the variable or the file's path; empty for Default.
	Where string
}

func (s Source) String() string {
	switch s.Kind {
	case File:
		return "file " + s.Where
	case Environment:
		return "environment " + s.Where
	case Flag:
		return "flag " + s.Where
	default:
		return "default"
	}
}

// Value is one setting as text, not yet parsed.
type Value struct {
	Name   string
	Text   string
	Source Source
}

// Spec says what to layer.
type Spec struct {
	// Flags holds every setting as a flag, with its default; the flag set must have been parsed.
	Flags *pflag.FlagSet
	// Names are the flags that are settings, in the order of a listing.
	Names []string
	// Assign names the repeatable NAME=VALUE flag (a string array); empty for none. It is not in Names.
	Assign string
	// FileFlag names the setting that holds the path of the YAML file; empty for none. It is in Names.
	FileFlag string
	// EnvPrefix is what the variables start with, with its underscore.
	EnvPrefix string
	// Environ lists the environment as NAME=VALUE.
	Environ func() []string
}

// Layered holds the outcome: every setting and every assignment with its source.
type Layered struct {
	values []Value
	byName map[string]Value
	assign map[string]Value
}

// EnvName returns the variable of a setting: the prefix, upper case, dashes to underscores.
func EnvName(prefix, name string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Load reads all layers. Errors say which layer is at fault.
func Load(spec Spec) (*Layered, error) {
	fromEnv, err := loadEnv(spec)
	if err != nil {
		return nil, err
	}
	l := &Layered{byName: map[string]Value{}, assign: map[string]Value{}}
	fromFile := koanf.New(".")
	path := ""
	if spec.FileFlag != "" {
		path = pick(spec, fromEnv, fromFile, spec.FileFlag, "").Text
	}
	if path != "" {
		if fromFile, err = loadFile(spec, path); err != nil {
			return nil, err
		}
	}
	for _, name := range spec.Names {
		v := pick(spec, fromEnv, fromFile, name, path)
		l.values = append(l.values, v)
		l.byName[name] = v
	}
	return l, l.loadAssignments(spec, fromEnv, fromFile, path)
}

// Get returns a setting named in Spec.Names.
func (l *Layered) Get(name string) Value { return l.byName[name] }

// Values returns the settings in the order of Spec.Names.
func (l *Layered) Values() []Value { return slices.Clone(l.values) }

// Assignments returns the NAME=VALUE pairs in order of their names.
func (l *Layered) Assignments() []Value {
	out := make([]Value, 0, len(l.assign))
	for _, name := range slices.Sorted(maps.Keys(l.assign)) {
		out = append(out, l.assign[name])
	}
	return out
}

func loadEnv(spec Spec) (*koanf.Koanf, error) {
	known := map[string]string{}
	for _, name := range append(slices.Clone(spec.Names), spec.Assign) {
		if name != "" {
			known[EnvName(spec.EnvPrefix, name)] = name
		}
	}
	k := koanf.New("\x00")
	err := k.Load(env.Provider("\x00", env.Opt{
		Prefix:      spec.EnvPrefix,
		EnvironFunc: spec.Environ,
		// Other variables with the prefix are no mistake: container platforms set some by themselves.
		TransformFunc: func(name, value string) (string, any) { return known[name], value },
	}), nil)
	return k, err
}

func loadFile(spec Spec, path string) (*koanf.Koanf, error) {
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return nil, fmt.Errorf("read configuration file %s: %w", path, err)
	}
	all := k.All()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if err := checkKey(spec, key, all[key]); err != nil {
			return nil, fmt.Errorf("configuration file %s: %w", path, err)
		}
	}
	return k, nil
}

// checkKey refuses what is neither a setting nor an assignment, or has no single value.
func checkKey(spec Spec, key string, value any) error {
	if spec.Assign != "" && key == spec.Assign {
		if m, ok := value.(map[string]any); value == nil || ok && len(m) == 0 {
			return nil
		}
		return fmt.Errorf("%s: want a mapping of names to values", key)
	}
	assignment := spec.Assign != "" && strings.HasPrefix(key, spec.Assign+".")
	if !assignment && (!slices.Contains(spec.Names, key) || key == spec.FileFlag) {
		return fmt.Errorf("unknown setting %q; known: %s", key, knownNames(spec))
	}
	if _, err := text(value); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func knownNames(spec Spec) string {
	var names []string
	for _, name := range append(slices.Clone(spec.Names), spec.Assign) {
		if name != "" && name != spec.FileFlag {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// pick returns the value of the highest layer that names it.
func pick(spec Spec, fromEnv, fromFile *koanf.Koanf, name, path string) Value {
	f := spec.Flags.Lookup(name)
	switch {
	case f.Changed:
		return Value{name, f.Value.String(), Source{Flag, "--" + name}}
	case fromEnv.Exists(name):
		return Value{name, fromEnv.String(name), Source{Environment, EnvName(spec.EnvPrefix, name)}}
	case fromFile.Exists(name):
		s, _ := text(fromFile.Get(name)) // loadFile has checked it.
		return Value{name, s, Source{File, path}}
	default:
		return Value{name, f.DefValue, Source{Kind: Default}}
	}
}

func (l *Layered) loadAssignments(spec Spec, fromEnv, fromFile *koanf.Koanf, path string) error {
	if spec.Assign == "" {
		return nil
	}
	for key, value := range fromFile.All() {
		if name, ok := strings.CutPrefix(key, spec.Assign+"."); ok {
			s, _ := text(value) // loadFile has checked it.
			l.assign[name] = Value{name, s, Source{File, path}}
		}
	}
	variable := EnvName(spec.EnvPrefix, spec.Assign)
	if fromEnv.Exists(spec.Assign) {
		for _, pair := range splitPairs(fromEnv.String(spec.Assign)) {
			if err := l.set(pair, Source{Environment, variable}); err != nil {
				return err
			}
		}
	}
	pairs, err := spec.Flags.GetStringArray(spec.Assign)
	if err != nil {
		return err
	}
	for _, pair := range pairs {
		if err := l.set(pair, Source{Flag, "--" + spec.Assign}); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layered) set(pair string, src Source) error {
	name, value, ok := strings.Cut(pair, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q (%s): want NAME=VALUE", pair, src)
	}
	l.assign[name] = Value{name, value, src}
	return nil
}

// splitPairs splits a=1,b=x,y,c=3 into a=1, b=x,y and c=3: a part without an equal sign belongs to the value before it.
func splitPairs(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if len(out) > 0 && !strings.Contains(part, "=") {
			out[len(out)-1] += "," + part
			continue
		}
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// text turns a YAML scalar into the text a flag would have.
func text(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool, int, int64, uint64:
		return fmt.Sprint(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case nil:
		return "", errors.New("has no value")
	default:
		return "", fmt.Errorf("want one value, not %T", v)
	}
}
