// Says what Microsoft's own language service finds wrong with queries, which columns they give, and how it read them.
//
// Reads {tables: {table: {column: type}}, queries: {name: text}} from standard input and writes
// {name: {problems: [{severity, message, line, text}], columns: [[name, type]], tree}} to standard output.
//
// A tree's node is {kind, type or columns, name, value} and its parts by name; a token is its text, a list an array.
'use strict'

const fs = require('node:fs')
const path = require('node:path')
const vm = require('node:vm')

// The package is written for web pages: its files are scripts that share one global scope.
function load () {
  const folder = path.join(__dirname, 'node_modules', '@kusto', 'language-service-next')
  for (const file of ['bridge.min.js', 'Kusto.Language.Bridge.min.js']) {
    vm.runInThisContext(fs.readFileSync(path.join(folder, file), 'utf8'), { filename: file })
  }
  return globalThis.Kusto.Language
}

function listed (bridged) {
  return Array.from({ length: bridged.Count }, (_, at) => bridged.getItem(at))
}

function scope (language, tables) {
  const symbols = language.Symbols
  const members = Object.entries(tables).map(([name, columns]) => {
    const schema = Object.entries(columns).map(([column, type]) => `['${column}']:${type}`).join(', ')
    return symbols.TableSymbol.From(`(${schema})`).WithName(name)
  })
  return language.GlobalState.Default.WithDatabase(new symbols.DatabaseSymbol.ctor('workspace', members))
}

function problem (text, found) {
  return {
    severity: found.Severity,
    message: found.Message,
    line: text.slice(0, found.Start).split('\n').length,
    text: text.slice(found.Start, found.Start + found.Length)
  }
}

function columnsOf (type) {
  return listed(type.Columns).map(column => [column.Name, column.Type.Name])
}

// What a node is beside its parts. A literal's value is given as text, for numbers here have too few digits.
function facts (node) {
  const about = {}
  if (node.ResultType && node.ResultType.Columns) {
    about.columns = columnsOf(node.ResultType)
  } else if (node.ResultType) {
    about.type = node.ResultType.Name
  }
  if (typeof node.SimpleName === 'string') about.name = node.SimpleName
  if (node.IsLiteral) about.value = node.LiteralValue === null ? null : String(node.LiteralValue)
  return about
}

function tree (kinds, node) {
  if (!node) return null
  if (node.IsToken) return node.Text
  const kind = kinds[node.Kind]
  const children = Array.from({ length: node.ChildCount }, (_, at) => node.GetChild(at))
  if (kind === 'List') return children.map(child => tree(kinds, child))
  if (kind === 'SeparatedElement') return tree(kinds, children[0])
  const parts = children.map((child, at) => [node.GetName(at), tree(kinds, child)])
  return { kind, ...facts(node), parts: Object.fromEntries(parts) }
}

function check (language, globals, kinds, text) {
  const code = language.KustoCode.ParseAndAnalyze(text, globals)
  const result = code.ResultType
  return {
    problems: listed(code.GetDiagnostics()).map(found => problem(text, found)),
    columns: result && result.Columns ? columnsOf(result) : [],
    tree: tree(kinds, code.Syntax)
  }
}

const { tables, queries } = JSON.parse(fs.readFileSync(0, 'utf8'))
const language = load()
const globals = scope(language, tables)
const kinds = Object.fromEntries(Object.entries(language.Syntax.SyntaxKind).map(([name, number]) => [number, name]))
const answer = Object.entries(queries).map(([name, text]) => [name, check(language, globals, kinds, text)])
process.stdout.write(JSON.stringify(Object.fromEntries(answer)))
