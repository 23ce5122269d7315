import Runtime
import Testing

private let declared: [Option] = [
    Option("kafka", .address, "brokers"),
    Option("kafka-property", .keyValue, "a property"),
    Option("port", .integer(1...65535), "a port", standard: "8080"),
    Option("linger", .duration, "a time", standard: "5ms"),
    Option("window", .size, "a size"),
    Option("verbose", .flag, "say more"),
    Option("format", .choice(["text", "json"]), "a form", standard: "text"),
    Option("secret", .string("KEY"), "a key", isSecret: true),
]

private func parse(
    _ arguments: [String], environment: [String: String] = [:], file: String? = nil
) throws(UsageError) -> Options {
    try Options(declared, arguments: arguments, environment: environment, file: file.map { ("fanout.conf", $0) })
}

@Suite struct OptionsTests {
    @Test func `flags come before the environment, the environment before the file, the file before what is standard`()
        throws
    {
        let file = "# shared by all\nport = 1\nwindow=2MiB\nlinger = 1s\n"
        let environment = ["FANOUT_PORT": "2", "FANOUT_WINDOW": "3MiB"]
        let options = try parse(["--port", "3"], environment: environment, file: file)
        #expect(options.integer("port") == 3)
        #expect(options.bytes("window") == 3 << 20)
        #expect(options.durationMs("linger") == 1000)
        #expect(options.string("format") == "text")
        #expect(options.address("kafka") == nil)
    }

    @Test func `values may follow with a space or an equals sign, and -- ends the options`() throws {
        let options = try parse(["--port=9", "one", "--verbose", "--", "--two"])
        #expect(options.integer("port") == 9)
        #expect(options.flag("verbose"))
        #expect(options.operands == ["one", "--two"])
        #expect(options.given == ["port", "verbose"])
    }

    @Test func `properties add up and keep equals signs in their values`() throws {
        let options = try parse(["--kafka-property", "a=1", "--kafka-property=b=x=y"])
        #expect(options.keyValues("kafka-property").map(\.key) == ["a", "b"])
        #expect(options.keyValues("kafka-property").map(\.value) == ["1", "x=y"])
    }

    @Test(arguments: [
        (["--prot", "1"], "unknown option --prot (did you mean --port?)"),
        (["-x"], "unknown option -x"),
        (["--port"], "--port needs a value: --port N"),
        (["--port", "0"], "--port must be a whole number from 1 to 65535, not '0'"),
        (["--linger", "5"], "--linger must be a time such as 250ms, 5s, 10m, 2h or 30d, not '5'"),
        (["--window", "5MB"], "--window must be a size such as 64KiB, 16MiB or 1GiB, not '5MB'"),
        (["--kafka", "host"], "--kafka must be HOST:PORT, not 'host'"),
        (["--kafka", "host:99999"], "--kafka must be HOST:PORT, not 'host:99999'"),
        (["--format", "xml"], "--format must be one of text, json, not 'xml'"),
        (["--kafka-property", "=x"], "--kafka-property must be KEY=VALUE, not '=x'"),
        (["--window", "99999999999GiB"], "--window must be a size such as 64KiB, 16MiB or 1GiB, not '99999999999GiB'"),
    ])
    func `a mistake is one clear line`(arguments: [String], line: String) {
        #expect(throws: UsageError(line)) { try parse(arguments) }
    }

    @Test func `mistakes in environment and file say where they are`() {
        #expect(throws: UsageError("FANOUT_PORT must be a whole number from 1 to 65535, not 'x'")) {
            try parse([], environment: ["FANOUT_PORT": "x"])
        }
        #expect(throws: UsageError("fanout.conf, line 2: unknown setting prot")) { try parse([], file: "\nprot = 1") }
        #expect(throws: UsageError("fanout.conf, line 1: expected name = value")) { try parse([], file: "port") }
        #expect(throws: UsageError("fanout.conf, line 1: port must be a whole number from 1 to 65535, not 'x'")) {
            try parse([], file: "port = x")
        }
    }

    @Test func `a secret is not shown even when it is wrong`() {
        #expect(throws: UsageError("--secret must not be empty")) { try parse(["--secret", ""]) }
    }

    @Test func `a required option that is missing is named`() throws {
        let options = try parse([])
        #expect(throws: UsageError("--kafka is required: --kafka HOST:PORT")) { try options.require("kafka") }
    }

    @Test func `addresses take names, IPv4 and bracketed IPv6`() {
        #expect(Address("localhost:80") == Address(host: "localhost", port: 80))
        #expect(Address("[::1]:80")?.host == "::1")
        #expect(Address("::1:80") == nil)
        #expect(Address(":80") == nil)
        #expect(Address("a:") == nil)
    }
}
