import Testing

@testable import OneMachine

@Suite struct StatusScreenTests {
    private func screen(_ change: (inout OneMachineConfiguration) -> Void = { _ in }) throws -> String {
        var configuration = OneMachineConfiguration(directory: "/data", executable: "/fanout")
        configuration.web = "/web"
        (configuration.port, configuration.brokerPort, configuration.postgresPort) = (0, 0, 0)
        change(&configuration)
        let pipeline = Pipeline(
            configuration: configuration, ports: try Ports(configuration),
            secrets: .init(tokenKey: "key-secret", linkSecret: "link-secret", postgresPassword: "pg-secret"),
            directory: "/data", postgresURL: "postgres://fanout:pg-secret@127.0.0.1:1/fanout")
        let ours = configuration.postgres == nil ? "postgres://fanout@127.0.0.1:1/fanout" : nil
        return StatusScreen(pipeline: pipeline, postgres: ours).text(tookMs: 7)
    }

    @Test func `no password, key or secret is shown, not even of a database that was given`() throws {
        for text in try [
            screen(), screen { $0.postgres = "postgres://me:hush-secret@db:5432/chat" },
            screen { $0.postgres = "host=db password=hush-secret" },
        ] {
            #expect(!text.contains("-secret"), "\(text)")
        }
        #expect(try screen { $0.postgres = "postgres://me:hush-secret@db:5432/chat" }.contains("host=db port=5432"))
    }

    @Test func `it says where to look, who one can be, where the tokens are and how to stop`() throws {
        let text = try screen()
        for part in ["/ops", "Ada", "/data/demo-users.json", "/data/admin-token", "Ctrl-C stops everything"] {
            #expect(text.contains(part), "\(part) in \(text)")
        }
        #expect(text.split(separator: "\n").count < 24 && text.split(separator: "\n").allSatisfy { $0.count < 160 })
    }

    @Test func `without their files no pages are promised, and it says what is missing`() throws {
        let text = try screen { $0.web = nil }
        #expect(text.contains("--web DIR") && !text.contains("/ops") && !text.contains("  open"), "\(text)")
    }

    @Test func `a database that is not ours gets no demo people unless they are wanted`() throws {
        #expect(try !screen { $0.postgres = "postgres://db/chat" }.contains("Ada"))
        #expect(try screen { ($0.postgres, $0.makesDemoPeople) = ("postgres://db/chat", true) }.contains("Ada"))
    }
}
