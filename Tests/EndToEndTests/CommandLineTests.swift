import TestSupport
import Testing

@Suite struct CommandLineTests {
    @Test func `help lists every command and is asked for in any of the usual ways`() throws {
        for arguments in [["--help"], ["-h"], ["help"]] {
            let (status, text) = try FanoutProcess.run(arguments)
            #expect(status == 0)
            #expect(text.contains("usage: fanout COMMAND"))
        }
    }

    @Test func `the version is one line`() throws {
        let (status, text) = try FanoutProcess.run(["--version"])
        #expect(status == 0)
        #expect(text.wholeMatch(of: /fanout \d+\.\d+\.\d+\n/) != nil, "\(text)")
    }

    @Test func `an unknown command is one line and exit status 2`() throws {
        let (status, text) = try FanoutProcess.run(["nonsense"])
        #expect(status == 2)
        #expect(text == "fanout: unknown command 'nonsense'; fanout --help lists them\n")
    }

    @Test func `no command at all shows the overview and exit status 2`() throws {
        let (status, text) = try FanoutProcess.run([])
        #expect(status == 2)
        #expect(text.contains("usage: fanout COMMAND"))
    }
}
