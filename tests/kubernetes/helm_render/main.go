// Renders a Helm chart for the tests of the Kubernetes lane: templates, and those of Helm's functions that
// docker/helm/slipway uses. It is no Helm: a function that is not here is an error, never ignored.
//
// Usage: helm-render CHART CONTEXT.json, where the context holds Values, Release and Chart.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"text/template"
)

type values = map[string]interface{}

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: helm-render CHART CONTEXT.json"))
	}
	text, err := render(os.Args[1], os.Args[2])
	if err != nil {
		fail(err)
	}
	fmt.Print(text)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "helm-render:", err)
	os.Exit(1)
}

func render(chart, contextFile string) (string, error) {
	var context values
	data, err := os.ReadFile(contextFile)
	if err == nil {
		err = json.Unmarshal(data, &context)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", contextFile, err)
	}
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	if err != nil {
		return "", err
	}
	sort.Strings(files)
	all := template.New("chart").Option("missingkey=zero")
	all.Funcs(functions(all))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if _, err := all.New(filepath.Base(file)).Parse(string(data)); err != nil {
			return "", err
		}
	}
	var out bytes.Buffer
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var part bytes.Buffer
		if err := all.ExecuteTemplate(&part, name, context); err != nil {
			return "", err
		}
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(part.String()) != "" {
			fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", name, part.String())
		}
	}
	return out.String(), nil
}

func functions(all *template.Template) template.FuncMap {
	indent := func(spaces int, text string) string {
		pad := strings.Repeat(" ", spaces)
		return pad + strings.ReplaceAll(text, "\n", "\n"+pad)
	}
	return template.FuncMap{
		"include": func(name string, context interface{}) (string, error) {
			var out bytes.Buffer
			err := all.ExecuteTemplate(&out, name, context)
			return out.String(), err
		},
		"required": func(message string, value interface{}) (interface{}, error) {
			if isEmpty(value) {
				return nil, errors.New(message)
			}
			return value, nil
		},
		"default": func(fallback, value interface{}) interface{} {
			if isEmpty(value) {
				return fallback
			}
			return value
		},
		"toYaml": func(value interface{}) string { return strings.Join(block(value), "\n") },
		"toJson": func(value interface{}) (string, error) {
			data, err := json.Marshal(value)
			return string(data), err
		},
		"quote":      func(value interface{}) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
		"nindent":    func(spaces int, text string) string { return "\n" + indent(spaces, text) },
		"trunc":      func(length int, text string) string { return text[:min(length, len(text))] },
		"trimSuffix": func(suffix, text string) string { return strings.TrimSuffix(text, suffix) },
		"list":       func(items ...interface{}) []interface{} { return items },
		"dict": func(pairs ...interface{}) values {
			result := values{}
			for i := 0; i+1 < len(pairs); i += 2 {
				result[fmt.Sprint(pairs[i])] = pairs[i+1]
			}
			return result
		},
	}
}

// block is a value in YAML's block style, line by line; scalars as in JSON, which YAML includes.
func block(value interface{}) []string {
	var lines []string
	switch v := value.(type) {
	case values:
		keys := make([]string, 0, len(v))
		for key := range v {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		for _, key := range keys {
			below := block(v[key])
			if isCollection(v[key]) && !isEmpty(v[key]) {
				lines = append(lines, key+":")
				for _, line := range below {
					lines = append(lines, "  "+line)
				}
			} else {
				lines = append(lines, key+": "+below[0])
			}
		}
	case []interface{}:
		for _, item := range v {
			for i, line := range block(item) {
				lines = append(lines, map[bool]string{true: "- ", false: "  "}[i == 0]+line)
			}
		}
	}
	if len(lines) > 0 {
		return lines
	}
	data, err := json.Marshal(value)
	if err != nil {
		fail(err)
	}
	return []string{string(data)}
}

func isCollection(value interface{}) bool {
	switch value.(type) {
	case values, []interface{}:
		return true
	default:
		return false
	}
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

// isEmpty is what Helm holds for empty: the zero value, or a collection without elements.
func isEmpty(value interface{}) bool {
	if value == nil {
		return true
	}
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	default:
		return v.IsZero()
	}
}
