import Foundation
import Testing

/// The rules of ARCHITECTURE.md that a compiler does not check, held by reading the sources.
@Suite struct TidyTests {
    /// What each target may import beside the standard library. The order is that of the layers.
    static let imports: [String: Set<String>] = {
        let ground: Set = ["Wire", "Runtime", "System"]
        let clients: Set = ["KafkaClient", "PostgresClient", "Store"]
        let stage = ground.union(clients)
        return [
            "Wire": [],
            "Runtime": [],
            "System": ["Runtime", "COpenSSL", "CCompression", "CLinux", "Glibc"],
            "KafkaClient": ground.union(["CRdKafka", "Glibc"]),
            "PostgresClient": ground.union(["CPostgres", "Glibc"]),
            "HTTPClient": ground.union(["CCurl", "Glibc"]),
            "WebSocket": ground,
            "PushLink": ground,
            "Store": ground.union(["PostgresClient"]),
            "Ingest": stage.union(["WebSocket", "PushLink"]),
            "CDC": stage,
            "StreamJoin": stage,
            "Delivery": stage.union(["PushLink"]),
            "History": stage,
            "Push": stage.union(["HTTPClient"]),
            "Lag": stage.union(["WebSocket"]),
            "Broker": ground,
            "Bench": stage.union(["WebSocket", "PushLink", "HTTPClient"]),
            "OneMachine": stage.union(["HTTPClient"]),
        ]
    }()

    /// Layers 0, 2 and 3: where C and unsafe code may be.
    static let mayBeUnsafe: Set = [
        "System", "KafkaClient", "PostgresClient", "HTTPClient", "WebSocket", "PushLink",
    ]

    /// Types whose thread-safety the compiler cannot see, each with a comment at its declaration that says why it holds.
    static let uncheckedSendable: Set = ["LoopBound", "TLSHandle", "PublicKey", "PrivateKey", "Ending"]

    static let standard: Set = ["Synchronization"]

    @Test func `a target imports only lower layers`() throws {
        for file in try Source.all(under: "Sources") where file.target != "fanout" {
            let allowed = try #require(Self.imports[file.target], "\(file.target) has no row in the layer table")
            for module in file.imports where !allowed.union(Self.standard).contains(module) {
                Issue.record("\(file.path) imports \(module)")
            }
        }
    }

    @Test func `C and unsafe code stay in the layers that may hold them`() throws {
        for file in try Source.all(under: "Sources") where !Self.mayBeUnsafe.contains(file.target) {
            for (number, line) in file.code(with: "nsafe", "_silgen_name")
            where line.contains(/\bunsafe\b|\bUnsafe|@_silgen_name|nonisolated\(unsafe\)/) {
                Issue.record("\(file.path):\(number): unsafe code")
            }
        }
    }

    @Test func `unchecked Sendable is on the list and explained`() throws {
        for file in try Source.all(under: "Sources") {
            for (number, line) in file.code(with: "@unchecked Sendable") where line.contains("@unchecked Sendable") {
                let name = line.firstMatch(of: /(?:class|struct|extension)\s+([A-Za-z.]+)/).map { String($0.1) } ?? "?"
                if !Self.uncheckedSendable.contains(name) {
                    Issue.record("\(file.path):\(number): \(name) is @unchecked Sendable and not on the list")
                }
            }
        }
    }

    @Test func `nothing can crash the process but a broken invariant`() throws {
        for file in try Source.all(under: "Sources") {
            for (number, line) in file.code(with: "fatalError", "try!", "as!", "Foundation")
            where line.contains(/\bfatalError\((?:"|\))|\btry!|\bas!|\bFoundation\b/) {
                Issue.record("\(file.path):\(number): \(line.trimmingCharacters(in: .whitespaces))")
            }
        }
    }

    @Test func `tests wait for events, not for time`() throws {
        for file in try Source.all(under: "Tests") where !["TidyTests", "TestSupport"].contains(file.target) {
            for (number, line) in file.code(with: "sleep")
            where line.contains(/\bu?sleep\(|\bThread\.sleep|\bTask\.sleep/) {
                Issue.record("\(file.path):\(number): \(line.trimmingCharacters(in: .whitespaces))")
            }
        }
    }

    @Test func `a file holds one idea`() throws {
        for file in try Source.all(under: "Sources") + Source.all(under: "Tests") where file.lines.count > 600 {
            Issue.record("\(file.path) has \(file.lines.count) lines")
        }
    }

    @Test func `pages name the tests that there are, and the table of RFC 6455 all of its own`() throws {
        let names = try Source.all(under: "Tests").flatMap { file in
            file.lines.lazy.filter { $0.utf8.contains(0x60) }.compactMap {
                $0.firstMatch(of: /func `([^`]+)`\(/).map { (file.target, String($0.1)) }
            }
        }
        let page = try String(contentsOf: Source.root.appending(path: "docs/websocket.md"), encoding: .utf8)
        let rows = page.split(separator: "\n").filter { $0.hasPrefix("| ") }.dropFirst()
        #expect(rows.count > 20)
        let named = Set(
            rows.flatMap { row in
                (row.split(separator: " | ").last ?? "").matches(of: /`([^`]+)`/).map { String($0.1) }
            })
        for name in named.subtracting(names.map(\.1)).sorted() { Issue.record("there is no test \(name)") }
        for (target, name) in names
        where target == "WebSocketTests" && name.contains(/^(?:\d|RFC)/) && !named.contains(name) {
            Issue.record("docs/websocket.md does not name \(name)")
        }
        let hostile = try String(contentsOf: Source.root.appending(path: "docs/hostile-input.md"), encoding: .utf8)
        let files = Set(try Source.all(under: "Tests").map { URL(filePath: $0.path).lastPathComponent })
        let targets = Set(names.map(\.0))
        for row in hostile.split(separator: "\n").filter({ $0.hasPrefix("| ") }) {
            guard let last = row.split(separator: "|").last, !last.contains(/held by|---/) else { continue }
            for holder in last.split(separator: ",").map({ $0.trimmingCharacters(in: .whitespaces) }) {
                let name = holder.split(separator: "/").last.map(String.init) ?? ""
                #expect(files.contains(name + ".swift") || targets.contains(name), "nothing is held by \(holder)")
            }
        }
    }

    @Test func `nothing is left for later`() throws {
        for file in try Source.all(under: "Sources") {
            for (number, line) in file.code(with: "TODO", "FIXME", "XXX", comments: true)
            where line.contains(/\b(?:TODO|FIXME|XXX)\b/) {
                Issue.record("\(file.path):\(number): \(line)")
            }
        }
    }
}

private struct Source {
    let path: String
    let target: String
    let text: String
    let lines: [String]

    private static let sources = Result { try read("Sources") }
    private static let tests = Result { try read("Tests") }

    static func all(under directory: String) throws -> [Source] {
        try (directory == "Sources" ? sources : tests).get()
    }

    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    private static func read(_ directory: String) throws -> [Source] {
        let files = try #require(FileManager.default.enumerator(atPath: root.appending(path: directory).path))
        let sources = try files.compactMap { $0 as? String }.filter { $0.hasSuffix(".swift") }.map { path in
            let text = try String(contentsOf: root.appending(path: "\(directory)/\(path)"), encoding: .utf8)
            return Source(
                path: "\(directory)/\(path)", target: String(path.prefix { $0 != "/" }), text: text,
                lines: text.components(separatedBy: "\n"))
        }
        try #require(!sources.isEmpty, "no sources under \(directory)")
        return sources
    }

    /// Numbered lines without comments.
    var code: [(Int, String)] {
        zip(1..., lines).map { number, line in
            (number, line.range(of: "//").map { String(line[..<$0.lowerBound]) } ?? line)
        }
    }

    /// Those of a file in which one of the words stands at all: a regular expression for each line of all files takes a minute.
    func code(with words: String..., comments: Bool = false) -> [(Int, String)] {
        guard words.contains(where: { text.range(of: $0) != nil }) else { return [] }
        return comments ? Array(zip(1..., lines)) : code
    }

    var imports: [String] {
        code.filter { $0.1.range(of: "import ") != nil }.compactMap { _, line in
            line.firstMatch(
                of:
                    /^\s*(?:@\w+\s+)*(?:public |package |internal )?import (?:(?:struct|class|enum|func|protocol|typealias) )?(\w+)/
            )
            .map { String($0.1) }
        }
    }
}
